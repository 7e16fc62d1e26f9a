{{- define "preheat.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- /* What every pod of ours may say of where it is pulled from and where it lands. */}}
{{- define "preheat.pod" -}}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets: {{ toJson . }}
{{- end }}
{{- with .of.nodeSelector }}
nodeSelector: {{ toJson . }}
{{- end }}
{{- with .of.tolerations }}
tolerations: {{ toJson . }}
{{- end }}
{{- end }}

{{- /* Spread over nodes: {name}. */}}
{{- define "preheat.spread" -}}
priorityClassName: system-cluster-critical
topologySpreadConstraints:
  - topologyKey: kubernetes.io/hostname
    maxSkew: 1
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {app.kubernetes.io/name: {{ .name }}}
{{- end }}

{{- define "preheat.account" -}}
- {kind: ServiceAccount, name: preheat-autoscaler, namespace: {{ .Release.Namespace }}}
{{- end }}

{{- /* The rules of the first role in a file of the kustomize base: {root, file}. */}}
{{- define "preheat.rules" -}}
{{ (.root.Files.Get .file | splitList "\n---\n" | first | fromYaml).rules | toYaml }}
{{- end }}
