-- The database, and two roles for it: one that owns the tables and changes them (`orderkeep
-- migrate`), one that only reads and writes them (`serve`, `work`, every other command).
--
-- Run it with psql as a superuser. It may be run again, to mend rights or to change passwords.
--
--   OWNER_PASSWORD=... APPLICATION_PASSWORD=... \
--     psql --host HOST --username postgres --set ON_ERROR_STOP=1 --file deploy/postgresql/roles.sql
--
-- Other names: DATABASE, OWNER, APPLICATION in the environment.

\set database orderkeep
\set owner orderkeep_owner
\set application orderkeep
\getenv database DATABASE
\getenv owner OWNER
\getenv application APPLICATION
\getenv owner_password OWNER_PASSWORD
\getenv application_password APPLICATION_PASSWORD

-- Statements with passwords stay out of the server's log.
SET log_statement = 'none';
SET log_min_duration_statement = -1;
SET log_min_error_statement = 'panic';

SELECT format('CREATE ROLE %I', name)
FROM unnest(ARRAY[:'owner', :'application']) AS name
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name)
\gexec
ALTER ROLE :"owner" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD :'owner_password';
ALTER ROLE :"application"
  LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD :'application_password';

SELECT format('CREATE DATABASE %I OWNER %I ENCODING ''UTF8'' TEMPLATE template0', :'database', :'owner')
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'database')
\gexec
REVOKE ALL ON DATABASE :"database" FROM PUBLIC;
GRANT CONNECT ON DATABASE :"database" TO :"owner", :"application";

\connect :"database"
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO :"owner";
GRANT USAGE ON SCHEMA public TO :"application";
\ir grants.sql
