"""A loaded model as scripts see it: opened from paths, asked for text, closed."""
