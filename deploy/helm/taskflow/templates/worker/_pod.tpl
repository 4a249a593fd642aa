{{/* What the pods of all TaskQueues have in common. The operator lays a TaskQueue's template over it, and fixes labels,
probes, queue, children and grace itself. Values stand here and not in a ConfigMap, so that a worker in another
namespace needs no copy of one. */}}
{{- define "taskflow.worker.pod" -}}
{{- $full := include "taskflow.fullname" . -}}
{{- $who := dict "root" . "component" "worker" "role" "worker" "image" (include "taskflow.image" (dict "root" . "role" "worker")) -}}
metadata:
  labels:
    {{- include "taskflow.selector" $who | nindent 4 }}
    app.kubernetes.io/managed-by: taskflow
  annotations:
    checksum/stores: {{ include "taskflow.checksum.stores" . }}
    {{- with .Values.worker.podAnnotations }}{{ toYaml . | nindent 4 }}{{ end }}
spec:
  serviceAccountName: {{ $full }}-worker
  automountServiceAccountToken: false
  enableServiceLinks: false
  securityContext: {{ include "taskflow.pod.security" 65532 | nindent 4 }}
  {{- include "taskflow.pullSecrets" . | nindent 2 }}
  {{- include "taskflow.placing" (dict "root" . "component" "worker" "values" .Values.worker) | nindent 2 }}
  initContainers: {{ include "taskflow.waiting" $who | nindent 4 }}
  containers:
    - name: worker
      image: {{ include "taskflow.workerImage" . | quote }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      env:
        {{- include "taskflow.env.database" $who | nindent 8 }}
        {{- include "taskflow.env.redis" $who | nindent 8 }}
        {{- include "taskflow.env.pod" . | nindent 8 }}
        {{- include "taskflow.env.common" . | nindent 8 }}
        {{- with .Values.worker.env }}{{ toYaml . | nindent 8 }}{{ end }}
      resources: {{ toYaml .Values.worker.resources | nindent 8 }}
      securityContext: {{ include "taskflow.container.security" . | nindent 8 }}
      volumeMounts: {{ include "taskflow.mounts" . | nindent 8 }}
  volumes: {{ include "taskflow.volumes" . | nindent 4 }}
{{- end -}}
