"""The embedded Postgres, S3 and Airflow of a laptop."""
