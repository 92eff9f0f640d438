"""Few bits: numbers, layers and files of low-bit transformers, and their trainer."""
