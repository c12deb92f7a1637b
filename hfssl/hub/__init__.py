"""Downloads from and uploads to the Hub."""
