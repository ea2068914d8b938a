-- What a run of wrk came to, as a line of JSON; times are in microseconds.
local line = '{"requests":%d,"duration":%d,"p50":%d,"p99":%d,"refused":%d,"failed":%d}\n'

function done(summary, latency)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.timeout
  io.write(string.format(line, summary.requests, summary.duration, latency:percentile(50),
    latency:percentile(99), errors.status, failed))
end
