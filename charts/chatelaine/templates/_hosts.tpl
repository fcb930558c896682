{{- /* Parts of the pods of hosts. Where a host is needed: {root: $, host: {…}}. */ -}}

{{- define "chatelaine.hostLabels" -}}
app.kubernetes.io/name: chatelaine
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
chatelaine.dev/host: {{ .host.name }}
{{- end }}

{{- /* The account of a host: it may make invitations of its own name, and is seen by one init container only. */ -}}
{{- define "chatelaine.hostAccount" -}}
host-{{ .host.name }}
{{- end }}

{{- define "chatelaine.stateDir" -}}
{{ .host.stateDir | default (printf "/var/lib/chatelaine/%s" .host.name) }}
{{- end }}

{{- /* Volumes cannot be moved: another node or folder is another volume. */ -}}
{{- define "chatelaine.stateVolume" -}}
{{ .root.Release.Name }}-{{ .host.name }}-{{ printf "%s %s" .host.node (include "chatelaine.stateDir" .) | sha256sum | trunc 8 }}
{{- end }}

{{- define "chatelaine.joinContainer" -}}
- name: join
  image: {{ .image | quote }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  {{- if eq .root.Values.hostDefaults.join "Self" }}
  args:
    - host
    - enter
    - {{ .host.name }}
    - --namespace={{ .root.Release.Namespace }}
    - --state-dir=/var/lib/chatelaine
  {{- else }}
  args: [host, await, --state-dir=/var/lib/chatelaine/agent]
  {{- end }}
  resources: {{- toYaml .root.Values.hostDefaults.resources.agent | nindent 4 }}
  securityContext: {{- include "chatelaine.restrictedContainer" .root | nindent 4 }}
  volumeMounts:
    - {name: scratch, mountPath: /tmp}
    - {name: state, mountPath: /var/lib/chatelaine}
    {{- if eq .root.Values.hostDefaults.join "Self" }}
    - {name: account, mountPath: /var/run/secrets/kubernetes.io/serviceaccount, readOnly: true}
    {{- end }}
{{- end }}

{{- /* What a pod gets by itself otherwise, in every container. */ -}}
{{- define "chatelaine.accountVolume" -}}
- name: account
  projected:
    defaultMode: 0440
    sources:
      - serviceAccountToken: {path: token, expirationSeconds: 3600}
      - configMap: {name: kube-root-ca.crt, items: [{key: ca.crt, path: ca.crt}]}
      - downwardAPI: {items: [{path: namespace, fieldRef: {fieldPath: metadata.namespace}}]}
{{- end }}

{{- define "chatelaine.gatewayContainer" -}}
{{- $resources := .host.resources | default dict -}}
- name: gateway
  image: {{ .image | quote }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  args:
    - gateway
    - --host-name={{ .host.name }}
    - --state-dir=/var/lib/chatelaine/gateway
    - --tls-dir=/var/lib/chatelaine/gateway/tls
    - --local-socket=/run/chatelaine/gateway.sock
    - --listen={{ include "chatelaine.anyAddress" .root }}:8443
    - --module={{ .host.pkcs11.module }}
    - --token-uri={{ .host.pkcs11.token }}
    {{- with .host.pkcs11.serial }}
    - --serial={{ . }}
    {{- end }}
    - --pin-file={{ .pinFile }}
    - --log-level={{ .root.Values.hostDefaults.logLevel }}
  {{- with .host.extraEnv }}
  env: {{- toYaml . | nindent 4 }}
  {{- end }}
  ports:
    - {name: https, containerPort: 8443}
  startupProbe:
    httpGet: {path: /healthz, port: https, scheme: HTTPS}
    periodSeconds: 1
    failureThreshold: 120
  livenessProbe:
    httpGet: {path: /healthz, port: https, scheme: HTTPS}
  readinessProbe:
    httpGet: {path: /readyz, port: https, scheme: HTTPS}
    periodSeconds: 5
  resources: {{- toYaml ($resources.gateway | default .root.Values.hostDefaults.resources.gateway) | nindent 4 }}
  securityContext: {{- include "chatelaine.restrictedContainer" .root | nindent 4 }}
{{- end }}

{{- /* Without resources, securityContext and volumeMounts: those differ. */ -}}
{{- define "chatelaine.agentContainer" -}}
- name: agent
  image: {{ .image | quote }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  args:
    - agent
    - --host-name={{ .host.name }}
    - --state-dir=/var/lib/chatelaine/agent
    - --gateway-socket=/run/chatelaine/gateway.sock
    - --listen={{ include "chatelaine.anyAddress" .root }}:8444
    - --tcti={{ .tcti }}
    - --log-level={{ .root.Values.hostDefaults.logLevel }}
  ports:
    - {name: agent, containerPort: 8444}
  startupProbe:
    tcpSocket: {port: agent}
    periodSeconds: 1
    failureThreshold: 120
  livenessProbe:
    tcpSocket: {port: agent}
  readinessProbe:
    tcpSocket: {port: agent}
{{- end }}

{{- define "chatelaine.hostScheduling" -}}
{{- with .root.Values.hostDefaults.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .root.Values.hostDefaults.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
nodeSelector: {kubernetes.io/hostname: {{ .host.node | quote }}}
{{- end }}

{{- define "chatelaine.hsm" -}}
apiVersion: chatelaine.dev/v1alpha1
kind: Hsm
metadata:
  name: {{ .host.name }}
  labels:
    {{- include "chatelaine.ownKindLabels" .root | nindent 4 }}
    {{- with .host.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations: {{- include "chatelaine.ownKindAnnotations" .root | nindent 4 }}
spec:
  token: {{ .host.pkcs11.token | quote }}
  gateway:
    service:
      namespace: {{ include "chatelaine.gatewaysNamespace" .root }}
      name: gateway-{{ .host.name }}
      podSelector:
        matchLabels: {{- include "chatelaine.hostLabels" (merge (dict "component" "gateway") .) | nindent 10 }}
      podPort: 8443
  agent: {host: agent-{{ .host.name }}.{{ .agentNamespace }}.svc, port: 8444}
  attestation:
    policyRef: {name: {{ .host.attestation.policy }}}
    intervalSeconds: {{ .host.attestation.intervalSeconds | default 10 }}
  {{- with pick .host "identity" "cordoned" "capacity" "offers" }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- /* The evaluation hosts, in the form of `hosts`, as JSON. */ -}}
{{- define "chatelaine.evaluationHosts" -}}
{{- $hosts := list }}
{{- if .Values.evaluation.enabled }}
{{- range $number := untilStep 1 (int .Values.evaluation.hosts | add1 | int) 1 }}
{{- $name := printf "evaluation-%d" $number }}
{{- $hosts = append $hosts (dict
  "name" $name
  "labels" (dict "chatelaine.dev/zone" "evaluation" "chatelaine.dev/model" "softhsm")
  "pkcs11" (dict "module" "/usr/lib/softhsm/libsofthsm2.so" "token" (printf "pkcs11:token=%s" $name))
  "extraEnv" (list (dict "name" "SOFTHSM2_CONF" "value" "/var/lib/chatelaine/token/softhsm2.conf"))
  "attestation" (dict "policy" "evaluation" "intervalSeconds" 5)
  "offers" (dict "maxSensitivity" "Restricted")
) }}
{{- end }}
{{- end }}
{{- toJson $hosts }}
{{- end }}
