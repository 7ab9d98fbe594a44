"""The GGUF file of the package llamakit-gguf, against llama.cpp: answers, and its converter.

    python benchmarks/export_gguf.py                     # builds llama.cpp first: ten minutes
    python benchmarks/export_gguf.py --shape tiny --rounds 1
    python benchmarks/export_gguf.py --llama3 FOLDER     # with Meta's tokenizer.model in it

The peer is ``llama-cpp-python`` from PyPI. Its source archive has all of llama.cpp in it, so the
program that runs the files and ``convert_hf_to_gguf.py`` are of one version. It is compiled once,
in an environment of its own under ``build/``; where that cannot be done, the reason is printed
and nothing is measured. Other packages are those of whoever runs this.

Answers are greedy. Ours are computed in float32 from weights rounded as the file's are, if it is
f32, f16 or bf16. llama.cpp rounds activations to the type of the weights they are multiplied with:
to 11 bits for f16, to 8 for bf16 and q8_0. So f32 and f16 have to be equal; of bf16 and q8_0 the
random checkpoints, whose best two tokens are often close, show what that rounding does.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from convert import SHAPES, make_checkpoint, measure, report

import llamakit
from llamakit.demo import path as demo_path

ROOT = Path(__file__).parents[1]
PEER = "llama-cpp-python==0.3.36"
PARTS = ("TOOLS", "EXAMPLES", "TESTS", "SERVER", "COMMON")
CMAKE_ARGS = " ".join(
    ["-DGGML_OPENMP=OFF", "-DLLAMA_CURL=OFF", "-DMTMD_BUILD=OFF", "-DLLAVA_BUILD=OFF"]
    + [f"-DLLAMA_BUILD_{part}=OFF" for part in PARTS]
)
DATA = ROOT / "tests" / "data"
REFERENCES = (
    *(DATA / "reference-cases" / name for name in ("gqa-mp1", "mha-mp8")),
    *(DATA / "reference-cases-llama3" / name for name in ("llama3-gqa-mp1", "llama31-mp8")),
)
TEXTS = ["Once upon a time", "  two  spaces\n\tand ünï 🙂 </s>", "What is the name of the dog?"]
TOKENS = 24
DTYPES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16", "q8_0": None}

READER = """
import json, sys
from llama_cpp import Llama
file, prompts, count, strings = sys.argv[1], *map(json.loads, sys.argv[2:])
model = Llama(file, n_ctx=512, n_threads=2, type_k=0, type_v=0, verbose=False)
texts, answers = strings, []
for prompt in prompts:
    answers.append([])
    for token in model.generate(prompt, temp=0.0, top_k=1, repeat_penalty=1.0):
        if token == model.token_eos() or len(answers[-1]) == count:
            break
        answers[-1].append(token)
tokens = [model.tokenize(text.encode(), add_bos=True, special=False) for text in texts]
print(json.dumps({"answers": answers, "tokens": tokens}))
"""
SAME = """
import sys
from gguf import GGUFReader
files = [GGUFReader(file) for file in sys.argv[1:]]
a, b = ({it.name: it for it in file.tensors} for file in files)
same = [n for n in a if n in b and a[n].tensor_type == b[n].tensor_type
        and a[n].data.tobytes() == b[n].data.tobytes()]
print(f"{len(same)} of {len(a | b)} tensors are the same, byte for byte")
a, b = ({n: it.contents() for n, it in file.fields.items()} for file in files)
odd = sorted(n for n in a | b if n[:5] != "GGUF." and (n not in a or n not in b or a[n] != b[n]))
print(f"{len(a | b) - 3} keys; not the same: {', '.join(odd) or 'none'}")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shape", choices=SHAPES, default="2gb")
    parser.add_argument("--folder", type=Path, help="a folder on the disk to measure")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--llama3", type=Path, help="a Llama 3 in Meta's format, to compare, too")
    parser.add_argument("--environment", type=Path, default=ROOT / "build" / "benchmark-gguf")
    arguments = parser.parse_args()
    environment = arguments.environment.resolve()
    try:
        make_environment(environment)
    except (OSError, subprocess.CalledProcessError) as error:
        words = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
        print(f"skipped: {PEER} could not be installed: {words[-1] if words else error}")
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="llamakit-bench-") as folder:
        compare_answers(environment, Path(folder))
        if arguments.llama3:
            compare_files(environment, Path(folder), arguments.llama3.resolve())
        compare_converters(environment, Path(folder), arguments.shape, arguments.rounds)


def make_environment(folder: Path) -> None:
    """Make an environment with llama.cpp, llamakit and the exporter, if there is none."""
    if not (folder / "complete").is_file():
        print(f"compiling {PEER}; this takes minutes", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        run(sys.executable, "-m", "venv", folder)
        (site,) = folder.glob("lib/python*/site-packages")
        shared = [path for path in sys.path if path.endswith("site-packages")]
        (site / "shared.pth").write_text("\n".join(shared), "utf-8")
        pip(folder, "download", "--no-deps", "--no-binary", ":all:", "-d", folder, PEER)
        (archive,) = folder.glob("llama_cpp_python-*.tar.gz")
        with tarfile.open(archive) as files:
            files.extractall(folder / "source", filter="data")
        pip(folder, "install", archive, "gguf", "transformers", "-c", ROOT / "constraints.txt")
        (folder / "complete").touch()
    with tempfile.TemporaryDirectory() as copies:
        for name in ("llamakit", "packages/llamakit-gguf"):
            ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
            shutil.copytree(ROOT / name, Path(copies) / name, ignore=ignored)
        for name in ("pyproject.toml", "setup.py", "entry_points.txt", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, copies)
        plugin = Path(copies) / "packages" / "llamakit-gguf"
        pip(folder, "install", "--no-deps", "--force-reinstall", copies, plugin)


def compare_answers(environment: Path, folder: Path) -> None:
    """Print, for small real checkpoints, whether llama.cpp answers as llamakit does."""
    print(f"{'':12} {'type':5} {'bytes':>10}  greedy ids    ids of texts")
    for model in (demo_path(), *REFERENCES):
        for outtype, dtype in DTYPES.items():
            file = export(environment, model, folder / f"{model.name}-{outtype}", outtype)
            rounded = model
            if dtype is not None:
                rounded = folder / f"{model.name}-{dtype}"
                llamakit.reshard(model, rounded, 1, dtype=dtype)
            tokenizer = llamakit.load_tokenizer(model)
            prompts = prompts_for(model, tokenizer)
            with llamakit.Llama.open(rounded, tokenizer.path, dtype="float32") as llama:
                ours, _ = llama.generate(prompts, max_gen_len=TOKENS, temperature=0)
            words = (json.dumps(it) for it in (prompts, TOKENS, TEXTS))
            said = json.loads(run(python(environment), "-c", READER, file, *words))
            equal = sum(a == b for a, b in zip(ours, said["answers"], strict=True))
            ids = [tokenizer.encode(text, bos=True) for text in TEXTS]
            same = sum(a == b for a, b in zip(ids, said["tokens"], strict=True))
            print(
                f"{model.name:12} {outtype:5} {file.stat().st_size:>10,}  {equal} of "
                f"{len(prompts)} equal  {same} of {len(ids)} equal",
                flush=True,
            )


def prompts_for(model: Path, tokenizer: llamakit.protocols.Tokenizer) -> list[list[int]]:
    expected = model.with_name(f"{model.name}.expected.json")
    if expected.is_file():
        return json.loads(expected.read_text("utf-8"))["prompt_tokens"]
    return [tokenizer.encode(text, bos=True) for text in TEXTS]


def compare_files(environment: Path, folder: Path, model: Path) -> None:
    """Print whether both make the same file of a Llama 3; the converter knows Meta's tokenizer."""
    llamakit.export(model, folder / "llama3-hf")
    ours = export(environment, model, folder / "llama3", "bf16")
    theirs = folder / "llama3.gguf"
    words = ["--outtype", "bf16", "--outfile", theirs]
    run(python(environment), converter(environment), folder / "llama3-hf", *words)
    print(model.name, run(python(environment), "-c", SAME, ours, theirs).strip(), flush=True)


def converter(environment: Path) -> Path:
    (script,) = environment.glob("source/*/vendor/llama.cpp/convert_hf_to_gguf.py")
    return script


def compare_converters(environment: Path, folder: Path, shape: str, rounds: int) -> None:
    """Print how long and in how much memory both write the same file; both from cold files."""
    source, source_hf = folder / "source", folder / "source-hf"
    nbytes = make_checkpoint(source, SHAPES[shape])
    llamakit.export(source, source_hf, tokenizer=llamakit.load_tokenizer(demo_path()).path)
    print(f"{nbytes / 1e9:.2f} GB, {os.cpu_count()} cores", flush=True)
    script = converter(environment)
    tokenizer = str(llamakit.load_tokenizer(demo_path()).path)
    ours, theirs, copy = folder / "ours", folder / "theirs", folder / "copy"
    for outtype in ("f16", "q8_0"):
        programs = {
            "cp": (shell('cp -r "$0" "$1" && sync', source, copy), source, copy),
            f"llamakit {outtype}": (
                [*export_words(environment, source, ours, outtype), "--tokenizer", tokenizer],
                *(source, ours),
            ),
            f"llama.cpp {outtype}": (
                shell(
                    'mkdir "$3" && "$0" "$1" "$2" --outtype "$4" --outfile "$3/made.gguf" && sync',
                    *(python(environment), script, source_hf, theirs, outtype),
                ),
                *(source_hf, theirs),
            ),
        }
        seconds: dict[str, list[float]] = {name: [] for name in programs}
        anonymous = dict.fromkeys(programs, 0)
        for _ in range(rounds):
            for name, (command, read, written) in programs.items():
                took, peak = measure(command, read, written)
                seconds[name].append(took)
                anonymous[name] = max(anonymous[name], peak)
        report(seconds, anonymous)
        (made,) = ours.glob("*.gguf")
        print(run(python(environment), "-c", SAME, made, theirs / "made.gguf").strip(), flush=True)


def export(environment: Path, model: Path, destination: Path, outtype: str) -> Path:
    run(*export_words(environment, model, destination, outtype))
    (file,) = destination.glob("*.gguf")
    return file


def export_words(environment: Path, model: Path, destination: Path, outtype: str) -> list[str]:
    program = str(environment / "bin" / "llamakit")
    words = ["--format", "gguf", "--option", f"outtype={outtype}"]
    return [program, "export", str(model), str(destination), *words]


def shell(script: str, *arguments: str | Path) -> list[str]:
    return ["sh", "-c", script, *map(str, arguments)]


def python(environment: Path) -> Path:
    return environment / "bin" / "python"


def pip(environment: Path, *words: str | Path) -> None:
    quiet = ("--quiet", "--disable-pip-version-check")
    run(python(environment), "-m", "pip", *words, *quiet, CMAKE_ARGS=CMAKE_ARGS)


def run(*command: str | Path, **variables: str) -> str:
    done = subprocess.run(
        list(map(str, command)),
        env=os.environ | variables,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=True,
    )
    return done.stdout


if __name__ == "__main__":
    main()
