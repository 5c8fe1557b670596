"""What the containers of docker-compose.yaml run, and `make env`, which makes their passwords and certificates."""
