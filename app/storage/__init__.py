"""What must not be lost: tables, files, and the bytes behind them."""
