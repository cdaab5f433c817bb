"""The gates that training starts from."""
