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

{{/* What workers and Redis users may do: "functions" names what today's services use, "tables" is what services of
earlier versions need. Without a word of the values a release keeps what it has, and a new one begins with "functions". */}}
{{- define "taskflow.workerRights" -}}
{{- $old := lookup "v1" "Secret" .Release.Namespace (include "taskflow.secret.redis" .) -}}
{{- $acl := include "taskflow.kept" (list $old "users.acl" "") -}}
{{- if .Values.workerRights }}{{ .Values.workerRights }}{{ else if contains "+@all" $acl }}tables{{ else }}functions{{ end -}}
{{- end -}}

{{/* The commands of a service, those inside the scripts of libs/core/lua included. A worker runs only scripts that the
scheduler has loaded, and publishes nothing. */}}
{{- define "taskflow.redis.commands" -}}
{{- $all := "+auth +hello +ping +quit +info +client|id +client|setname +evalsha +exists +get +llen +lpush +ltrim +rpush" -}}
{{- $notify := "+hget +decrby +scard +sadd" -}}
{{- if eq . "api" }}{{ $all }} {{ $notify }} +eval +set +time +publish
{{- else if eq . "scheduler" }}{{ $all }} {{ $notify }} +eval +script|exists +script|load +set +del +unlink +hset +hdel +hgetall +lpop +blpop +smembers +pexpire +scan +publish
{{- else }}{{ $all }} {{ $notify }} +set +hset +hdel +lpop +blmpop +client|unblock +subscribe +unsubscribe
{{- end }}
{{- end -}}

{{/* A user of the bundled Redis: what its service touches, and nothing that administers. Call with
(dict "root" $ "service" service "name" name "password" password "keys" keys). */}}
{{- define "taskflow.redis.user" -}}
user {{ .name }} on #{{ .password | sha256sum }} {{ .keys }} {{ if eq (include "taskflow.workerRights" .root) "functions" }}{{ include "taskflow.redis.commands" .service }}
{{- else }}+@all -@admin -@dangerous +info{{ if eq .service "worker" }} +client|unblock{{ end }}{{ end }}
{{- end -}}
