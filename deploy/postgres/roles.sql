-- Roles and databases of a new cluster; the image runs it once, when its volume is empty. Passwords come from the
-- environment, so that none is in a file or on a command line. A variable that is missing ends the start-up.
\set ON_ERROR_STOP on
\getenv airflow_password POSTGRES_AIRFLOW_PASSWORD
\getenv owner_password POSTGRES_OWNER_PASSWORD
\getenv app_password POSTGRES_APP_PASSWORD
\getenv analyst_password POSTGRES_ANALYST_PASSWORD

CREATE ROLE airflow LOGIN PASSWORD :'airflow_password';
CREATE ROLE refund_owner LOGIN PASSWORD :'owner_password';
CREATE ROLE refund_app LOGIN PASSWORD :'app_password';
CREATE ROLE refund_analyst LOGIN PASSWORD :'analyst_password';

CREATE DATABASE airflow OWNER airflow;
CREATE DATABASE refund OWNER refund_owner;

-- Nobody connects where they have no business; `refund migrate` lets refund_app and refund_analyst into refund.
REVOKE ALL ON DATABASE airflow FROM PUBLIC;
REVOKE ALL ON DATABASE refund FROM PUBLIC;
REVOKE ALL ON DATABASE postgres FROM PUBLIC;
REVOKE ALL ON DATABASE template1 FROM PUBLIC;

-- How long a query and an open transaction of an analyst may last; an open one keeps new partitions waiting.
ALTER ROLE refund_analyst IN DATABASE refund SET default_transaction_read_only = on;
ALTER ROLE refund_analyst IN DATABASE refund SET statement_timeout = '5min';
ALTER ROLE refund_analyst IN DATABASE refund SET idle_in_transaction_session_timeout = '10min';
-- Anybody may make large objects unless it is said otherwise.
\connect refund
REVOKE EXECUTE ON FUNCTION lo_creat(integer), lo_create(oid), lo_from_bytea(oid, bytea) FROM PUBLIC;
