"""Everything that outlives a task: objects in S3, staging, Postgres, the model registry."""
