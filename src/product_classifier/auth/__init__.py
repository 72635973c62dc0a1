"""The auth service: users, passwords, tokens and the keys that sign them."""
