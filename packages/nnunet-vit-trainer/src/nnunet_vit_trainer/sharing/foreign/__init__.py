"""What a stranger sent: read as data, checked before it is installed."""
