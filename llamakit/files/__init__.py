"""Files that other people may have put there, or can see: opened, written and linked with care."""
