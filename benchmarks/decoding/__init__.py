"""What ``benchmarks/decode.py`` runs: the model, and one program for each engine."""
