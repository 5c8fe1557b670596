-- Alerts that reach somebody: what was sent where, and who took it.

CREATE TABLE refund.notification (
  notification_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  alert_id         bigint NOT NULL REFERENCES refund.alert,
  channel          text NOT NULL,
  state            text NOT NULL CHECK (state IN ('sent', 'failed', 'cooling_down')),
  severity         text NOT NULL CHECK (severity IN ('info', 'warning', 'critical')),
  error            text,
  at               timestamptz NOT NULL,
  CHECK ((state = 'failed') = (error IS NOT NULL))
);
CREATE INDEX notification_by_alert ON refund.notification (alert_id, channel, notification_id DESC);
COMMENT ON TABLE refund.notification IS 'Every attempt to tell somebody of an alert; rows are only ever added.';
COMMENT ON COLUMN refund.notification.notification_id IS 'Number of the attempt.';
COMMENT ON COLUMN refund.notification.alert_id IS 'The alert.';
COMMENT ON COLUMN refund.notification.channel IS 'Channel: smtp, slack or apprise.';
COMMENT ON COLUMN refund.notification.state IS 'sent, failed, or cooling_down where the same rule was sent a short while ago.';
COMMENT ON COLUMN refund.notification.severity IS 'Severity of the alert at that time.';
COMMENT ON COLUMN refund.notification.error IS 'Why it failed, without secrets; null otherwise.';
COMMENT ON COLUMN refund.notification.at IS 'When.';
GRANT SELECT, INSERT ON refund.notification TO refund_app;

CREATE VIEW reporting.alerts AS
SELECT a.run_date, a.alert_id, a.rule, a.severity, a.message, a.details, a.run_id, a.first_seen_at, a.last_seen_at,
       a.seen_count, a.acknowledged_at, a.acknowledged_by, n.notified_at, n.notified_channels, a.synthetic
FROM refund.alert a
CROSS JOIN LATERAL (
  SELECT min(at) AS notified_at, COALESCE(array_agg(DISTINCT channel), '{}') AS notified_channels
  FROM refund.notification WHERE alert_id = a.alert_id AND state = 'sent') n;
COMMENT ON VIEW reporting.alerts IS 'What somebody should know, and who took it.';
COMMENT ON COLUMN reporting.alerts.run_date IS 'The night.';
COMMENT ON COLUMN reporting.alerts.alert_id IS 'Number of the alert.';
COMMENT ON COLUMN reporting.alerts.rule IS 'Rule that raised it.';
COMMENT ON COLUMN reporting.alerts.severity IS 'info, warning or critical.';
COMMENT ON COLUMN reporting.alerts.message IS 'What was seen, what was expected, what to do.';
COMMENT ON COLUMN reporting.alerts.details IS 'Figures behind the message, example keys, and the SQL to see more.';
COMMENT ON COLUMN reporting.alerts.run_id IS 'Run that it is about.';
COMMENT ON COLUMN reporting.alerts.first_seen_at IS 'When it was raised.';
COMMENT ON COLUMN reporting.alerts.last_seen_at IS 'When it was seen last.';
COMMENT ON COLUMN reporting.alerts.seen_count IS 'How often it was seen.';
COMMENT ON COLUMN reporting.alerts.acknowledged_at IS 'When somebody took it; null: nobody did.';
COMMENT ON COLUMN reporting.alerts.acknowledged_by IS 'Who took it.';
COMMENT ON COLUMN reporting.alerts.notified_at IS 'When somebody was told first; null: nobody was.';
COMMENT ON COLUMN reporting.alerts.notified_channels IS 'Channels that it was sent through.';
COMMENT ON COLUMN reporting.alerts.synthetic IS 'True for made-up nights of the demo.';
GRANT SELECT ON reporting.alerts TO refund_app, refund_analyst;
