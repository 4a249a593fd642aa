{{/* Names and labels. */}}

{{/* What all names begin with. At most 40 characters, so that the longest suffix still fits into 63; a long name keeps a
digest of itself, so that two of them stay apart. */}}
{{- define "taskflow.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $full := .Values.fullnameOverride -}}
{{- if not $full -}}
{{- $full = ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- end -}}
{{- if gt (len $full) 40 -}}
{{- printf "%s-%s" ($full | trunc 32 | trimSuffix "-") ($full | sha256sum | trunc 7) -}}
{{- else -}}
{{- $full -}}
{{- end -}}
{{- end -}}

{{/* Labels that never change: what selectors use. Call with (dict "root" $ "component" "api"). */}}
{{- define "taskflow.selector" -}}
app.kubernetes.io/name: taskflow
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "taskflow.labels" -}}
{{ include "taskflow.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* An image of ours. Call with (dict "root" $ "role" "api"). */}}
{{- define "taskflow.image" -}}
{{- $image := .root.Values.image -}}
{{- $digest := get $image.digests .role -}}
{{- $name := printf "%s/taskflow-%s" $image.registry .role -}}
{{- if $digest -}}
{{- printf "%s@%s" $name $digest -}}
{{- else -}}
{{- printf "%s:%s" $name (default .root.Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "taskflow.workerImage" -}}
{{- default (include "taskflow.image" (dict "root" . "role" "worker")) .Values.worker.image -}}
{{- end -}}

{{- define "taskflow.secret.database" -}}
{{- default (printf "%s-database" (include "taskflow.fullname" .)) .Values.database.existingSecret -}}
{{- end -}}

{{- define "taskflow.secret.redis" -}}
{{- default (printf "%s-redis" (include "taskflow.fullname" .)) .Values.redis.existingSecret -}}
{{- end -}}

{{- define "taskflow.secret.keys" -}}
{{- default (printf "%s-keys" (include "taskflow.fullname" .)) .Values.keys.existingSecret -}}
{{- end -}}

{{- define "taskflow.secret.admin" -}}
{{- default (printf "%s-admin" (include "taskflow.fullname" .)) .Values.admin.existingSecret -}}
{{- end -}}

{{/* What a Secret of yours holds now, as a digest: pods roll at the upgrade after it changed. Ours never change, and
could not be looked up before they are made. Call with (dict "root" $ "names" (list …)). */}}
{{- define "taskflow.secrets.checksum" -}}
{{- $found := dict -}}
{{- range $name := compact .names -}}
{{- $secret := lookup "v1" "Secret" $.root.Release.Namespace $name -}}
{{- $_ := set $found $name (dig "data" dict (default dict $secret)) -}}
{{- end -}}
{{- toJson $found | sha256sum -}}
{{- end -}}

{{/* A value of a Secret of ours: what is there already, else what is given. Call with (list $existing "key" $new). */}}
{{- define "taskflow.kept" -}}
{{- $data := dig "data" dict (default dict (index . 0)) -}}
{{- $old := get $data (index . 1) -}}
{{- if $old -}}{{ b64dec $old }}{{- else -}}{{ index . 2 }}{{- end -}}
{{- end -}}

{{/* "yes" where Helm speaks with a cluster (install, upgrade, --dry-run=server), "" for a plain `helm template`. Hooks are
rendered only in the first case: `kubectl apply` does not know hooks and would start them at once. The question is for a
list of Secrets: even an empty list is an answer, and who installs may read it, because Helm keeps its releases there. */}}
{{- define "taskflow.cluster" -}}
{{- if lookup "v1" "Secret" .Release.Namespace "" -}}yes{{- end -}}
{{- end -}}
