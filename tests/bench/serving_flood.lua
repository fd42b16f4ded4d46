-- wrk: as serving_post.lua, but each connection waits DELAY_MS between a reply and its next request,
-- so that a flood has the rate that is wanted, however fast it is refused.
-- Prints one line of JSON: requests begun, seconds, and by status how many and their latencies.
local ffi = require("ffi")
ffi.cdef("typedef struct { long s; long us; } moment; int gettimeofday(moment *, void *);")
local bodies, place, threads = {}, 0, {}
local now_at = ffi.new("moment")
local begun = {}
sent, took = 0, {}

local function now()
  ffi.C.gettimeofday(now_at, nil)
  return tonumber(now_at.s) * 1e6 + tonumber(now_at.us)
end

function setup(thread)
  thread:set("offset", #threads)
  threads[#threads + 1] = thread
end

function init(args)
  for line in io.lines(os.getenv("QUERIES")) do bodies[#bodies + 1] = line end
  place = offset * 7919
  pause = tonumber(os.getenv("DELAY_MS"))
  wrk.method = "POST"
  wrk.headers["Content-Type"] = "application/json"
end

function delay()
  return math.random(0, 2 * pause)
end

function request()
  place, sent = place + 1, sent + 1
  begun[sent] = now()
  wrk.headers["X-Request-Id"] = tostring(sent)
  return wrk.format(nil, nil, nil, bodies[place % #bodies + 1])
end

function response(status, headers, body)
  local number = tonumber(headers["x-request-id"])
  local list = took[status]
  if list == nil then list = {}; took[status] = list end
  list[#list + 1] = now() - begun[number]
  begun[number] = nil
end

function done(summary, latency, requests)
  local total, by_status = 0, {}
  for _, thread in ipairs(threads) do
    total = total + thread:get("sent")
    for status, list in pairs(thread:get("took")) do
      local all = by_status[status] or {}
      for _, value in ipairs(list) do all[#all + 1] = value end
      by_status[status] = all
    end
  end
  local parts = {}
  for status, list in pairs(by_status) do
    table.sort(list)
    parts[#parts + 1] = string.format(
      '"%d": {"count": %d, "p50_ms": %.2f, "p99_ms": %.2f}', status, #list,
      list[math.ceil(#list * 0.5)] / 1e3, list[math.ceil(#list * 0.99)] / 1e3)
  end
  io.write(string.format('{"sent": %d, "seconds": %.3f, %s}\n',
    total, summary.duration / 1e6, table.concat(parts, ", ")))
end
