"""The refund desk: REST and pages inside Airflow's own server, behind Airflow's own login."""
