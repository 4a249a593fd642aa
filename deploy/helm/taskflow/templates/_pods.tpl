{{/* Parts of pods. */}}

{{/* Nobody is root, and nothing can become it: what Pod Security "restricted" asks for. Call with a uid. */}}
{{- define "taskflow.pod.security" -}}
runAsNonRoot: true
runAsUser: {{ . }}
runAsGroup: {{ . }}
fsGroup: {{ . }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "taskflow.container.security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- define "taskflow.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Where pods go. Call with (dict "root" $ "component" "api" "values" .Values.api). */}}
{{- define "taskflow.placing" -}}
{{- with .values.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- if .values.topologySpread }}
topologySpreadConstraints:
{{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{ include "taskflow.selector" $ | nindent 8 }}
    matchLabelKeys: [pod-template-hash]
{{- end }}
{{- end }}
{{- end -}}

{{/* The certificates of the stores' authorities, when images do not know them. */}}
{{- define "taskflow.ca.env" -}}
{{- if .Values.caBundle.secret }}
- {name: SSL_CERT_FILE, value: /etc/taskflow/ca/ca.crt}
- {name: PGSSLROOTCERT, value: /etc/taskflow/ca/ca.crt}
{{- end }}
{{- end -}}

{{- define "taskflow.mounts" -}}
- {name: tmp, mountPath: /tmp}
{{- if .Values.caBundle.secret }}
- {name: ca, mountPath: /etc/taskflow/ca, readOnly: true}
{{- end }}
{{- end -}}

{{- define "taskflow.volumes" -}}
- {name: tmp, emptyDir: {}}
{{- if .Values.caBundle.secret }}
- name: ca
  secret:
    secretName: {{ .Values.caBundle.secret }}
    items: [{key: {{ .Values.caBundle.key | quote }}, path: ca.crt}]
{{- end }}
{{- end -}}

{{/* The database as one role sees it. Call with (dict "root" $ "role" "api"). */}}
{{- define "taskflow.env.database" -}}
- name: DATABASE_URL
  valueFrom:
    secretKeyRef: {name: {{ include "taskflow.secret.database" .root }}, key: {{ get .root.Values.database.urlKeys .role | quote }}}
{{- include "taskflow.ca.env" .root }}
{{- end -}}

{{- define "taskflow.env.redis" -}}
{{- $redis := .root.Values.redis -}}
{{- $full := include "taskflow.fullname" .root -}}
{{- range $level := list "high" "low" }}
{{- $server := get $redis $level }}
{{- if $redis.bundled }}
- {name: REDIS_HOST_{{ upper $level }}, value: {{ printf "%s-redis-%s.%s.svc" $full $level $.root.Release.Namespace }}}
{{- else }}
- {name: REDIS_HOST_{{ upper $level }}, value: {{ $server.host | quote }}}
- {name: REDIS_PORT_{{ upper $level }}, value: {{ $server.port | quote }}}
- {name: REDIS_TLS_{{ upper $level }}, value: {{ ternary "on" "off" $server.tls | quote }}}
{{- end }}
{{- if or $redis.bundled $redis.existingSecret }}
{{- with get $redis.users $.role }}
- {name: REDIS_USERNAME_{{ upper $level }}, value: {{ . | quote }}}
{{- end }}
- name: REDIS_PASSWORD_{{ upper $level }}
  valueFrom:
    secretKeyRef: {name: {{ include "taskflow.secret.redis" $.root }}, key: {{ get $redis.passwordKeys $.role | quote }}}
{{- end }}
{{- end }}
{{- end -}}

{{/* Where the process runs. */}}
{{- define "taskflow.env.pod" -}}
- {name: TASKFLOW_NAMESPACE, valueFrom: {fieldRef: {apiVersion: v1, fieldPath: metadata.namespace}}}
- {name: TASKFLOW_POD_NAME, valueFrom: {fieldRef: {apiVersion: v1, fieldPath: metadata.name}}}
- {name: TASKFLOW_POD_UID, valueFrom: {fieldRef: {apiVersion: v1, fieldPath: metadata.uid}}}
- {name: TASKFLOW_NODE_NAME, valueFrom: {fieldRef: {apiVersion: v1, fieldPath: spec.nodeName}}}
{{- end -}}

{{- define "taskflow.env.common" -}}
- {name: TASKFLOW_LOG_LEVEL, value: {{ .Values.settings.logLevel | quote }}}
- {name: HEARTBEAT_INTERVAL_SECONDS, value: {{ .Values.settings.heartbeatIntervalSeconds | quote }}}
{{- end -}}

{{/* Nothing starts before the schema is there. The server's own Python by its path: in the worker's image, the user's is
first. Call with (dict "root" $ "role" "api" "image" "…"). */}}
{{- define "taskflow.waiting" -}}
- name: wait-for-migrations
  image: {{ .image }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  command: [/opt/taskflow/bin/python, -I, -u, -m, core.migrate, --wait]
  env: {{ include "taskflow.env.database" . | nindent 4 }}
  resources:
    requests: {cpu: 10m, memory: 64Mi}
    limits: {memory: 256Mi}
  securityContext: {{ include "taskflow.container.security" . | nindent 4 }}
  volumeMounts: {{ include "taskflow.mounts" .root | nindent 4 }}
{{- end -}}

{{/* Probes of a process: alive is generous, because a busy machine is no reason to kill; ready is quick.
Call with a port's name. */}}
{{- define "taskflow.probes" -}}
startupProbe:
  httpGet: {path: /healthz, port: {{ . }}}
  periodSeconds: 2
  timeoutSeconds: 5
  failureThreshold: 60
readinessProbe:
  httpGet: {path: /readyz, port: {{ . }}}
  periodSeconds: 5
  timeoutSeconds: 5
livenessProbe:
  httpGet: {path: /healthz, port: {{ . }}}
  periodSeconds: 10
  timeoutSeconds: 10
  failureThreshold: 6
{{- end -}}
