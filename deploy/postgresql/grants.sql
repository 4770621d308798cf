-- What the application's role may do with the tables: those that are there, and those that
-- migrations of the owner will make. Run it with psql as the owner, or as a superuser, in the
-- database; roles.sql does so too.

\set owner orderkeep_owner
\set application orderkeep
\getenv owner OWNER
\getenv application APPLICATION

GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO :"application";
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO :"application";
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" IN SCHEMA public
  GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO :"application";
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" IN SCHEMA public
  GRANT USAGE ON SEQUENCES TO :"application";
