"""The wire formats of WebGME's blob and executor services, and what stands behind them here."""
