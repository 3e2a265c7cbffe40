-- HAProxy's side of the meter: asks the sidecar before a request is served, and keeps the end of what comes back.

local METER = "http://" .. os.getenv("METER") -- set in haproxy.cfg
local TIMEOUT_MS = 500
local END = 8192 -- bytes at the end of a response that the sidecar gets, in base64; tune.bufsize must hold them
local SENT = { "x-user-id", "x-estimated-tokens", "x-request-id" }

local function values_of(headers, name)
  local values = {}
  if headers[name] then
    for i = 0, #headers[name] do values[#values + 1] = headers[name][i] end
  end
  return values
end

local function refuse(txn, status, headers, body)
  local reply = txn:reply({ status = status, body = body })
  for _, name in ipairs({ "content-type", "retry-after", "x-credits-remaining", "ratelimit-policy", "ratelimit" }) do
    for _, value in ipairs(values_of(headers, name)) do reply:add_header(name, value) end
  end
  txn:done(reply)
end

core.register_action("meter_authorize", { "http-req" }, function(txn)
  local headers, sent = txn.http:req_get_headers(), {}
  for _, name in ipairs(SENT) do
    if headers[name] then sent[name] = values_of(headers, name) end
  end
  local answer = core.httpclient():get({ url = METER .. "/gateway/authorize", headers = sent, timeout = TIMEOUT_MS })
  local from_meter = answer.headers and answer.headers["x-reservation-id"]
  if answer.status == 200 and from_meter then
    txn:set_var("txn.meter_reservation", values_of(answer.headers, "x-reservation-id")[1])
    txn:set_var("txn.meter_remaining", values_of(answer.headers, "x-credits-remaining")[1])
    if answer.headers["ratelimit"] then
      txn:set_var("txn.meter_policy", values_of(answer.headers, "ratelimit-policy")[1])
      txn:set_var("txn.meter_limit", values_of(answer.headers, "ratelimit")[1])
    end
  elseif from_meter then
    refuse(txn, answer.status, answer.headers, answer.body)
  else -- down or too slow
    refuse(txn, 503, { ["content-type"] = { [0] = "application/problem+json" }, ["retry-after"] = { [0] = "1" } },
      '{"type":"/problems/metering-unavailable","title":"Metering unavailable","status":503}')
  end
end)

-- Looks on while a response passes; its end goes into txn.meter_body or txn.meter_end, which haproxy.cfg logs to the
-- sidecar. There it is read as JSON, which HAProxy's Lua cannot.
local Usage = { id = "meter usage", flags = filter.FLT_CFG_FL_HTX }
Usage.__index = Usage

function Usage:new() return setmetatable({ kept = "", size = 0 }, Usage) end

function Usage:start_analyze(_, channel)
  if channel:is_resp() then filter.register_data_filter(self, channel) end
end

function Usage:http_headers(txn, message)
  if not message.channel:is_resp() then return end
  local told = txn:get_var("txn.meter_usage")
  self.told = told ~= nil and told ~= "0" -- by X-Credits-Actual, which beats the body
end

function Usage:http_payload(txn, message)
  local chunk = message:body()
  if self.told or not chunk or #chunk == 0 then return end
  self.size = self.size + #chunk
  self.kept = (self.kept .. chunk):sub(-END)
  if self.size <= END then
    txn:set_var("txn.meter_body", self.kept)
  else
    txn:set_var("txn.meter_body", "")
    txn:set_var("txn.meter_end", self.kept)
  end
end

core.register_filter("meter_usage", Usage, function(self) return self end)
