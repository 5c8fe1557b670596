"""FAB's own settings: logins from Airflow's database, nobody registers themselves."""

from flask_appbuilder.const import AUTH_DB

AUTH_TYPE = AUTH_DB
AUTH_USER_REGISTRATION = False
WTF_CSRF_ENABLED = True
RATELIMIT_STORAGE_URI = "memory://"  # failed logins are counted per process of the API server
