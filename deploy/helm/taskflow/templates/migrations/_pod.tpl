{{/* The migrations' pod: a template of its own, because the Job's name is a digest of it. */}}
{{- define "taskflow.migrate.pod" -}}
{{- $full := include "taskflow.fullname" . -}}
{{- $who := dict "root" . "component" "migrate" "role" "owner" -}}
metadata:
  labels:
    {{- include "taskflow.selector" $who | nindent 4 }}
  annotations:
    checksum/stores: {{ include "taskflow.checksum.stores" . }}
    checksum/admin: {{ include "taskflow.secrets.checksum" (dict "root" . "names" (list .Values.admin.existingSecret)) }}
spec:
  restartPolicy: Never
  serviceAccountName: {{ $full }}-migrate
  automountServiceAccountToken: false
  enableServiceLinks: false
  securityContext: {{ include "taskflow.pod.security" 65532 | nindent 4 }}
  {{- include "taskflow.pullSecrets" . | nindent 2 }}
  {{- include "taskflow.placing" (dict "root" . "component" "migrate" "values" (omit .Values.api "topologySpread")) | nindent 2 }}
  {{- if .Values.database.bundled }}
  initContainers:
    - name: roles
      image: {{ .Values.postgres.image }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      command: [sh, -c, {{ include "taskflow.postgres.roles" . | quote }}]
      env:
        - {name: PGHOST, value: {{ include "taskflow.postgres.host" . }}}
        - {name: PGUSER, value: postgres}
        - {name: PGDATABASE, value: postgres}
        - name: PGPASSWORD
          valueFrom: {secretKeyRef: {name: {{ $full }}-database, key: superuser-password}}
        {{- range $role := list "owner" "api" "scheduler" "worker" "operator" }}
        - name: {{ upper $role }}_PASSWORD
          valueFrom: {secretKeyRef: {name: {{ $full }}-database, key: {{ $role }}-password}}
        {{- end }}
      resources:
        requests: {cpu: 10m, memory: 32Mi}
        limits: {memory: 128Mi}
      securityContext: {{ include "taskflow.container.security" . | nindent 8 }}
      volumeMounts: [{name: tmp, mountPath: /tmp}]
  {{- end }}
  containers:
    - name: migrate
      image: {{ include "taskflow.image" (dict "root" . "role" "api") }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      command: [/opt/taskflow/bin/python, -I, -u, -m, core.migrate{{ with .Values.workerRights }}, --worker-rights, {{ . }}{{ end }}]
      env:
        {{- include "taskflow.env.database" $who | nindent 8 }}
        {{- range $variable, $key := dict "TASKFLOW_ADMIN_USERNAME" "username" "TASKFLOW_ADMIN_PASSWORD" "password" "TASKFLOW_ADMIN_API_KEY" "api-key" }}
        - name: {{ $variable }}
          valueFrom: {secretKeyRef: {name: {{ include "taskflow.secret.admin" $ }}, key: {{ $key }}}}
        {{- end }}
      resources: {{ toYaml .Values.migrations.resources | nindent 8 }}
      securityContext: {{ include "taskflow.container.security" . | nindent 8 }}
      volumeMounts: {{ include "taskflow.mounts" . | nindent 8 }}
  volumes: {{ include "taskflow.volumes" . | nindent 4 }}
{{- end -}}
