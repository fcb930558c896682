"""The site of `docs/`: checked without anything installed, built by MkDocs in an environment of its own."""
