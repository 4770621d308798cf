"""What services say to each other and to clients: one module per queue, and the types of HTTP."""
