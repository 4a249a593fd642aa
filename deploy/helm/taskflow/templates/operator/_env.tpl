{{/* Whose TaskQueues it serves, and in which namespaces: for the operator, and for its farewell at uninstall. */}}
{{- define "taskflow.env.operator" -}}
{{- $op := .Values.operator }}
- {name: TASKFLOW_RELEASE, value: {{ printf "%s/%s" .Release.Namespace .Release.Name | quote }}}
{{- if $op.watchAllNamespaces }}
- {name: TASKFLOW_WATCH_NAMESPACES, value: "*"}
{{- else if $op.watchNamespaces }}
- {name: TASKFLOW_WATCH_NAMESPACES, value: {{ join "," (prepend $op.watchNamespaces .Release.Namespace | uniq) | quote }}}
{{- end }}
{{- end -}}

{{/* What it does with the TaskQueues of a namespace. */}}
{{- define "taskflow.operator.rules" -}}
- {apiGroups: [taskflow.dev], resources: [taskqueues], verbs: [get, list, watch, patch{{ if .Values.defaultQueue.enabled }}, create{{ end }}]}
- {apiGroups: [taskflow.dev], resources: [taskqueues/status], verbs: [patch]}
# Owner references that block an owner's deletion, where that takes a right of its own.
- {apiGroups: [taskflow.dev], resources: [taskqueues/finalizers], verbs: [update]}
- {apiGroups: [apps], resources: [deployments], verbs: [get, list, watch, create, patch]}
- {apiGroups: [apps], resources: [deployments/scale], verbs: [get, patch]}
- {apiGroups: [apps], resources: [replicasets], verbs: [list]}
- {apiGroups: [""], resources: [pods], verbs: [get, list, watch, patch]}
- {apiGroups: [""], resources: [events], verbs: [create, patch]}
- {apiGroups: [policy], resources: [poddisruptionbudgets], verbs: [get, create, patch]}
# Who else writes the replicas of a queue's Deployment.
- {apiGroups: [autoscaling], resources: [horizontalpodautoscalers], verbs: [list]}
- {apiGroups: [keda.sh], resources: [scaledobjects], verbs: [list]}
{{- end -}}
