"""HTTP: one ASGI application over the services' routes.

`app.py` puts it together; `auth.py` says who calls and what they may; `problems.py` gives every
refusal its status; `gate.py` is what each request passes first; `server.py` runs it all.
"""
