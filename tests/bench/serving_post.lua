-- wrk: posts the lines of the file QUERIES (one body a line), each thread from another place on.
-- Prints one line of JSON: requests, errors by kind, seconds, and latencies in milliseconds.
local bodies, place, threads = {}, 0, 0

function setup(thread)
  thread:set("offset", threads)
  threads = threads + 1
end

function init(args)
  for line in io.lines(os.getenv("QUERIES")) do bodies[#bodies + 1] = line end
  place = offset * 7919 + tonumber(os.getenv("START") or "0")
  wrk.method = "POST"
  wrk.headers["Content-Type"] = "application/json"
end

function request()
  place = place + 1
  return wrk.format(nil, nil, nil, bodies[place % #bodies + 1])
end

function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '{"requests": %d, "refused": %d, "failed": %d, "seconds": %.3f, "p50_ms": %.3f, "p99_ms": %.3f}\n',
    summary.requests, e.status, e.connect + e.read + e.write + e.timeout, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
