{{- /* Labels of everything. */ -}}
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

{{- define "chatelaine.image" -}}
{{- $tag := .Values.image.tag | default .Chart.AppVersion -}}
{{ .Values.image.repository }}:{{ $tag }}{{ with .Values.image.digest }}@{{ . }}{{ end }}
{{- end }}

{{- define "chatelaine.evaluationImage" -}}
{{- $own := .Values.evaluation.image -}}
{{- $repository := $own.repository | default (printf "%s-evaluation" .Values.image.repository) -}}
{{- $tag := $own.tag | default .Values.image.tag | default .Chart.AppVersion -}}
{{ $repository }}:{{ $tag }}{{ with $own.digest }}@{{ . }}{{ end }}
{{- end }}

{{- define "chatelaine.pullSecrets" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* Security contexts of pods and containers that satisfy Pod Security `restricted`. */ -}}
{{- define "chatelaine.restrictedPod" -}}
runAsNonRoot: true
{{- if kindIs "invalid" .Values.runAsUser | not }}
runAsUser: {{ .Values.runAsUser }}
runAsGroup: {{ .Values.runAsUser }}
fsGroup: {{ .Values.runAsUser }}
fsGroupChangePolicy: OnRootMismatch
{{- end }}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "chatelaine.restrictedContainer" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "chatelaine.gatewaysNamespace" -}}
{{ .Values.namespaces.gateways | default (printf "%s-gateways" .Release.Namespace) }}
{{- end }}

{{- define "chatelaine.agentsNamespace" -}}
{{ .Values.namespaces.agents | default (printf "%s-agents" .Release.Namespace) }}
{{- end }}

{{- /* Objects of our own kinds. Before the kinds are known, Helm cannot manage them: it makes them once the kinds are
there, with the marks by which the next upgrade takes them over. Then no object can stand there that a hook would
replace. They outlive the release: their status says who was refused, and which claim holds a place. */ -}}
{{- define "chatelaine.ownKindAnnotations" -}}
{{- if .Capabilities.APIVersions.Has "chatelaine.dev/v1alpha1/Hsm" -}}
helm.sh/resource-policy: keep
{{- else -}}
helm.sh/hook: post-install,post-upgrade
meta.helm.sh/release-name: {{ .Release.Name }}
meta.helm.sh/release-namespace: {{ .Release.Namespace }}
{{- end }}
{{- end }}

{{- define "chatelaine.ownKindLabels" -}}
{{ include "chatelaine.labels" . }}
app.kubernetes.io/managed-by: Helm
{{- end }}

{{- define "chatelaine.dns" -}}
- ports: [{protocol: UDP, port: 53}, {protocol: TCP, port: 53}]
{{- end }}

{{- /* An egress rule: {cidrs, ports}; no cidrs: anywhere. */ -}}
{{- define "chatelaine.egressTo" -}}
- ports:
    {{- range .ports }}
    - {protocol: TCP, port: {{ . }}}
    {{- end }}
  {{- with .cidrs }}
  to:
    {{- range . }}
    - ipBlock: {cidr: {{ . | quote }}}
    {{- end }}
  {{- end }}
{{- end }}

{{- /* A peer of a NetworkPolicy: the operator's pods. */ -}}
{{- define "chatelaine.operatorPeer" -}}
- namespaceSelector:
    matchLabels: {kubernetes.io/metadata.name: {{ .Release.Namespace | quote }}}
  podSelector:
    matchLabels: {{- include "chatelaine.operatorSelector" . | nindent 6 }}
{{- end }}

{{- define "chatelaine.joinEndpoint" -}}
{{- $inside := printf "%s.%s.svc:%v" (include "chatelaine.operator" .) .Release.Namespace .Values.operator.joinPort -}}
{{ .Values.operator.joinEndpoint | default $inside }}
{{- end }}

{{- define "chatelaine.operatorSpread" -}}
{{- $over := .Values.operator.spreadOverNodes }}
{{- $all := .Values.operator.topologySpreadConstraints }}
{{- if ne $over "Off" }}
{{- $all = prepend $all (dict "maxSkew" 1 "topologyKey" "kubernetes.io/hostname" "whenUnsatisfiable" $over) }}
{{- end }}
{{- with $all }}
topologySpreadConstraints:
  {{- range . }}
  - labelSelector:
      matchLabels: {{- include "chatelaine.operatorSelector" $ | nindent 8 }}
    {{- omit . "labelSelector" | toYaml | nindent 4 }}
  {{- end }}
{{- end }}
{{- end }}

{{- /* To the operator's join endpoint, and to the API server where hosts invite themselves. */ -}}
{{- define "chatelaine.joinEgress" -}}
- ports: [{protocol: TCP, port: {{ .Values.operator.joinPort }}}]
  to: {{- include "chatelaine.operatorPeer" . | nindent 4 }}
{{- if eq .Values.hostDefaults.join "Self" }}
{{ include "chatelaine.egressTo" .Values.networkPolicies.apiServer }}
{{- end }}
{{- end }}

{{- /* A process listens to one family of addresses: the one that pods are reached by. */ -}}
{{- define "chatelaine.anyAddress" -}}
{{ eq .Values.ipFamily "IPv6" | ternary "[::]" "0.0.0.0" }}
{{- end }}
