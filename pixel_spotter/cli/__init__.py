"""How commands start, and how they end."""
