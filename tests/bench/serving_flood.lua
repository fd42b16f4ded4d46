-- wrk: as serving_post.lua, but each connection waits DELAY_MS between a reply and its next request,
-- so that a flood has the rate that is wanted, however fast it is refused.
-- Requests are made once, before the flood: IDS of them, so many that an answer's id is its own.
-- Prints one line of JSON: requests begun, seconds, and by status how many and their latencies, to
-- a quarter of a millisecond; of latencies, the first second's are left out, in which all of the
-- connections are opened.
local ffi = require("ffi")
ffi.cdef("typedef struct { long s; long us; } moment; int gettimeofday(moment *, void *);")
local IDS = 32768
local requests, place, threads = {}, 0, {}
local now_at = ffi.new("moment")
local begun, first = {}, nil
sent, counts = 0, {}  -- counts by "status quarters"; wrk can hand over tables with string keys only

local function now()
  ffi.C.gettimeofday(now_at, nil)
  return tonumber(now_at.s) * 1e6 + tonumber(now_at.us)
end

function setup(thread)
  thread:set("offset", #threads)
  threads[#threads + 1] = thread
end

function init(args)
  local bodies = {}
  for line in io.lines(os.getenv("QUERIES")) do bodies[#bodies + 1] = line end
  pause = tonumber(os.getenv("DELAY_MS"))
  wrk.method = "POST"
  wrk.headers["Content-Type"] = "application/json"
  for id = 1, IDS do
    wrk.headers["X-Request-Id"] = tostring(id)
    requests[id] = wrk.format(nil, nil, nil, bodies[(id + offset * 7919) % #bodies + 1])
  end
end

function delay()
  return math.random(0, 2 * pause)
end

function request()
  place, sent = place % IDS + 1, sent + 1
  begun[place] = now()
  return requests[place]
end

function response(status, headers, body)
  local number = tonumber(headers["x-request-id"])
  local at, from = now(), begun[number]
  first = first or from
  local quarters = from - first < 1e6 and 0 or math.ceil((at - from) / 250)
  local key = string.format("%d %d", status, quarters)
  counts[key] = (counts[key] or 0) + 1
  begun[number] = nil
end

local function quantile(list, total, share)
  local seen = 0
  for _, entry in ipairs(list) do
    if entry[1] > 0 then seen = seen + entry[2] end
    if seen >= share * total then return entry[1] / 4 end
  end
end

function done(summary, latency, requests)
  local all, lists, totals, opened, parts = 0, {}, {}, {}, {}
  for _, thread in ipairs(threads) do
    all = all + thread:get("sent")
    for key, count in pairs(thread:get("counts")) do
      local status, quarters = key:match("(%d+) (%d+)")
      lists[status] = lists[status] or {}
      table.insert(lists[status], {tonumber(quarters), count})
      totals[status] = (totals[status] or 0) + count
      opened[status] = (opened[status] or 0) + (quarters == "0" and count or 0)
    end
  end
  for status, list in pairs(lists) do
    table.sort(list, function(a, b) return a[1] < b[1] end)
    parts[#parts + 1] = string.format(
      '"%s": {"count": %d, "p50_ms": %.2f, "p99_ms": %.2f}', status, totals[status],
      quantile(list, totals[status] - opened[status], 0.5),
      quantile(list, totals[status] - opened[status], 0.99))
  end
  io.write(string.format('{"sent": %d, "seconds": %.3f, %s}\n',
    all, summary.duration / 1e6, table.concat(parts, ", ")))
end
