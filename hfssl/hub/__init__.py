"""The Hub client: downloads and uploads."""
