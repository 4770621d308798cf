"""The payment channels: how money comes in and goes back."""
