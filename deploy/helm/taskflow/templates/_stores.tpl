{{/* What the pods' annotations say about Secrets that are not ours. */}}
{{- define "taskflow.checksum.stores" -}}
{{- include "taskflow.secrets.checksum" (dict "root" . "names" (list .Values.database.existingSecret .Values.redis.existingSecret .Values.caBundle.secret)) -}}
{{- end -}}

{{- define "taskflow.postgres.host" -}}
{{- printf "%s-postgres.%s.svc" (include "taskflow.fullname" .) .Release.Namespace -}}
{{- end -}}

{{/* Makes the roles and the database of the bundled PostgreSQL, as often as it runs. */}}
{{- define "taskflow.postgres.roles" -}}
set -eu
until pg_isready -q; do echo "waiting for PostgreSQL at $PGHOST"; sleep 2; done
psql --no-psqlrc --quiet --tuples-only --set ON_ERROR_STOP=1 <<'SQL'
\getenv owner OWNER_PASSWORD
\getenv api API_PASSWORD
\getenv scheduler SCHEDULER_PASSWORD
\getenv worker WORKER_PASSWORD
\getenv operator OPERATOR_PASSWORD
create temporary table wanted (name text, password text);
insert into wanted values ('taskflow', :'owner'), ('taskflow_api', :'api'), ('taskflow_scheduler', :'scheduler'),
    ('taskflow_worker', :'worker'), ('taskflow_operator', :'operator');
select format('create role %I login', name) from wanted where not exists (select from pg_roles where rolname = name) \gexec
select format('alter role %I login nosuperuser nocreatedb nocreaterole password %L', name, password) from wanted \gexec
select 'create database taskflow owner taskflow' where not exists (select from pg_database where datname = 'taskflow') \gexec
revoke all on database taskflow from public;
select format('grant connect on database taskflow to %I', name) from wanted \gexec
SQL
echo "roles and database are there"
{{- end -}}

{{/* A user of the bundled Redis: what its service touches, and nothing that administers. Call with
(list name password rules). */}}
{{- define "taskflow.redis.user" -}}
user {{ index . 0 }} on #{{ index . 1 | sha256sum }} {{ index . 2 }} +@all -@admin -@dangerous
{{- end -}}
