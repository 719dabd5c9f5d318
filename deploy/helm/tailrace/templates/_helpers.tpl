{{- define "tailrace.labels" -}}
app.kubernetes.io/name: tailrace
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* Arguments: dict "root" . "component" "ingestor" */}}
{{- define "tailrace.selector" -}}
app.kubernetes.io/name: tailrace
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "tailrace.name" -}}
{{ .Release.Name | trunc 50 | trimSuffix "-" }}-tailrace
{{- end }}

{{- define "tailrace.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{- define "tailrace.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (include "tailrace.name" .) }}
{{- end }}

{{- define "tailrace.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "tailrace.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* What every process that talks to Kafka needs to know. */}}
{{- define "tailrace.kafkaEnv" -}}
- name: TAILRACE_KAFKA
  value: {{ .Values.kafka.brokers | quote }}
- name: TAILRACE_TOPIC
  value: {{ .Values.kafka.topic | quote }}
- name: TAILRACE_KAFKA_SECURITY_PROTOCOL
  value: {{ .Values.kafka.securityProtocol | quote }}
{{- if hasPrefix "SASL" .Values.kafka.securityProtocol }}
- name: TAILRACE_KAFKA_SASL_MECHANISM
  value: {{ .Values.kafka.saslMechanism | quote }}
{{- if ne .Values.kafka.saslMechanism "OAUTHBEARER" }}
- name: TAILRACE_KAFKA_USERNAME
  value: {{ .Values.kafka.username | quote }}
- name: TAILRACE_KAFKA_PASSWORD_FILE
  value: /etc/tailrace/kafka/password
{{- else if .Values.kafka.oauth.tokenUrl }}
- name: TAILRACE_KAFKA_TOKEN_URL
  value: {{ .Values.kafka.oauth.tokenUrl | quote }}
- name: TAILRACE_KAFKA_CLIENT_ID
  value: {{ .Values.kafka.oauth.clientId | quote }}
- name: TAILRACE_KAFKA_CLIENT_SECRET_FILE
  value: /etc/tailrace/kafka/client-secret
{{- with .Values.kafka.oauth.scope }}
- name: TAILRACE_KAFKA_TOKEN_SCOPE
  value: {{ . | quote }}
{{- end }}
{{- if .Values.kafka.oauth.caInSecret }}
- name: TAILRACE_KAFKA_TOKEN_CA_FILE
  value: /etc/tailrace/kafka/token-ca.crt
{{- end }}
{{- else }}
- name: TAILRACE_KAFKA_TOKEN_FILE
  value: /etc/tailrace/kafka/token
{{- end }}
{{- end }}
{{- if .Values.kafka.caInSecret }}
- name: TAILRACE_KAFKA_CA_FILE
  value: /etc/tailrace/kafka/ca.crt
{{- end }}
{{- if .Values.kafka.mutualTls }}
- name: TAILRACE_KAFKA_CERT_FILE
  value: /etc/tailrace/kafka/tls.crt
- name: TAILRACE_KAFKA_KEY_FILE
  value: /etc/tailrace/kafka/tls.key
{{- end }}
{{- end }}

{{- define "tailrace.kafkaMount" -}}
{{- if .Values.kafka.secret }}
- {name: kafka, mountPath: /etc/tailrace/kafka, readOnly: true}
{{- end }}
{{- end }}

{{- define "tailrace.kafkaVolume" -}}
{{- if .Values.kafka.secret }}
- name: kafka
  secret: {secretName: {{ .Values.kafka.secret | quote }}, defaultMode: 0440}
{{- end }}
{{- end }}

{{/* /livez: the process turns. /readyz: it can do its work. */}}
{{- define "tailrace.probes" -}}
startupProbe:
  httpGet: {path: /livez, port: metrics}
  periodSeconds: 2
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /livez, port: metrics}
  periodSeconds: 15
  timeoutSeconds: 5
readinessProbe:
  httpGet: {path: /readyz, port: metrics}
  periodSeconds: 10
  timeoutSeconds: 5
{{- end }}

{{/*
A shipper as a native sidecar, for the initContainers of your own pods: it starts before the service and stops after it.
Arguments: dict "root" . "logs" "name of the volume with the logs". The id is the pod's own: progress is kept as long as the pod
is, and so are the files, which are in an emptyDir.
*/}}
{{- define "tailrace.shipperSidecar" -}}
- name: tailrace-shipper
  image: {{ include "tailrace.image" .root }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  restartPolicy: Always
  args: [ship, /var/log/app]
  env:
    {{- include "tailrace.kafkaEnv" .root | nindent 4 }}
    - name: TAILRACE_SHIPPER_ID
      valueFrom: {fieldRef: {fieldPath: metadata.uid}}
    - name: TAILRACE_METRICS_ADDRESS
      value: "0.0.0.0:{{ .root.Values.metrics.port }}"
  ports:
    - {name: metrics, containerPort: {{ .root.Values.metrics.port }}}
  startupProbe:
    httpGet: {path: /livez, port: metrics}
    periodSeconds: 1
    failureThreshold: 60
  livenessProbe:
    httpGet: {path: /livez, port: metrics}
    periodSeconds: 15
    timeoutSeconds: 5
  securityContext:
    {{- include "tailrace.containerSecurity" . | nindent 4 }}
  resources:
    requests: {cpu: 50m, memory: 96Mi}
    limits: {memory: 512Mi}
  volumeMounts:
    - {name: {{ .logs }}, mountPath: /var/log/app, readOnly: true}
    {{- include "tailrace.kafkaMount" .root | nindent 4 }}
{{- end }}
