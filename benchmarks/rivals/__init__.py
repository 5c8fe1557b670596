"""What people would write instead of our night, each in a process of its own and with an environment of its own.

`client` is our side. Everything else here is run by the other interpreter (``.venv-bench``) and imports nothing of ours
and nothing that benchmarks/requirements.txt does not name.
"""
