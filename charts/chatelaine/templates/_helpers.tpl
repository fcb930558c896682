{{- define "chatelaine.labels" -}}
app.kubernetes.io/name: chatelaine
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: chatelaine
{{- end }}

{{- define "chatelaine.operatorSelector" -}}
app.kubernetes.io/name: chatelaine
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "chatelaine.operator" -}}
{{ .Release.Name }}-operator
{{- end }}
