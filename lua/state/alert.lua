-- Alerts: decided with the balance that fires them, so that two charges that race across a threshold make one.
--
-- The account's text of thresholds is "-", or units in descending order: "30!,10". "!" marks one that has fired; it is
-- armed again when more than a tenth above it is available. A last "x" says that the end of all credits was told; it is
-- armed again when credits come in, not when a hold gives some back.
--
-- When a plan's grant ends and a renewal follows, which may come a moment later, what is told is judged with the renewal
-- and not before. Until then the time of that end stands behind, and the plan groups that are waited for: ";time@a@b@".
-- Between the two stands what is to be bought when few are left (state/top_up.lua), judged with them: "30!,10~a,20,...;time@a@".

local alerting = {
  CREDITS = { -- which way they go
    grant = 'in', grant_started = 'in', refund = 'in', deduct = 'out', reserve = 'out', extend = 'out', commit = 'out',
    void = 'out', grant_expired = 'out',
  },
  PATTERN = '^([^;~]*)(~?[^;]*);?(%d*)(%S*)$', -- thresholds, top-up, time, groups
  RENEWAL_WAIT_MS = 604800000, -- nobody waits longer than a week for a renewal that does not come
}

-- The thresholds without our marks.
local function bare_thresholds(text)
  text = gsub(gsub(gsub(text, '[;~].*$', ''), '!', ''), ',?x$', '')
  return text == '' and '-' or text
end

-- The thresholds of a balance, those at or above it marked as fired: nothing is told of what is so already.
local function marked_thresholds(text, available, exhausted)
  local parts = {}
  for t in gmatch(match(text, '^[^;~]*'), '%d+') do parts[#parts + 1] = available <= t + 0 and t .. '!' or t end
  if exhausted then parts[#parts + 1] = 'x' end
  return parts[1] and concat(parts, ',') or '-'
end

function alerting.set(a, levels, top_up, since, groups)
  a.thresholds = levels .. top_up .. (#groups < 2 and '' or ';' .. since .. groups)
  change_account(a)
end

-- The thresholds are to be those, marked by what is available; what waits for a renewal goes on waiting.
local function set_thresholds(a, thresholds)
  local levels, top_up, since, groups = match(a.thresholds, alerting.PATTERN)
  alerting.set(a, marked_thresholds(thresholds, a.available, sub(levels, -1) == 'x'), top_up, since, groups)
end

-- A grant of a plan group ends, and its renewal is to come.
local function await_renewal(a, group, time)
  local levels, top_up, _, groups = match(a.thresholds, alerting.PATTERN)
  if not string.find(groups, '@' .. group .. '@', 1, true) then
    groups = (groups == '' and '@' or groups) .. group .. '@'
  end
  alerting.set(a, levels, top_up, time, groups)
end

-- The renewal came, or will not come: what waited for it is judged by the next transaction.
local function renewed(a, group)
  local levels, top_up, since, groups = match(a.thresholds, alerting.PATTERN)
  local at = string.find(groups, '@' .. group .. '@', 1, true)
  if at then
    groups = sub(groups, 1, at) .. sub(groups, at + #group + 2)
    a.judged = groups == '@'
    alerting.set(a, levels, top_up, since, groups)
  end
end

-- Whether credits have run out with what was drawn: those that serve anything with what was taken of them, or all there are.
function alerting.runs_out(a, draws)
  if not a.restrictions[1] then return true end
  for n = 1, #draws, 2 do if not draws[n].only and draws[n + 1] > 0 then return true end end
  return false
end

-- The alerts of a transaction that leaves the account as it is, as JSON members of its entry; "" for none.
-- What a hold gives back to grants that have ended is about to be booked as expired, and does not count.
local function alerts_of(a, kind, amount, draws)
  local way = alerting.CREDITS[kind]
  if kind == 'adjust' then way = amount > 0 and 'in' or 'out' end
  local levels, top_up, since = match(a.thresholds, alerting.PATTERN)
  if since ~= '' and now - since <= alerting.RENEWAL_WAIT_MS then return top_ups.told(a, top_up) end
  local judged = a.judged or since ~= ''
  a.judged = false
  local available, parts, alerts = a.available - (a.forfeiting or 0), {}, {}
  for t, fired in gmatch(levels, '(%d+)(!?)') do
    local threshold = t + 0
    if available <= threshold then
      if fired == '' then alerts[#alerts + 1] = format('["low_credits",%d]', threshold) end
      fired = '!'
    elseif available > threshold + threshold / 10 then
      fired = ''
    end
    parts[#parts + 1] = t .. fired
  end
  local exhausted = sub(levels, -1) == 'x'
  if available > 0 and way == 'in' then
    exhausted = false
  elseif available == 0 and (judged or amount ~= 0 and way == 'out' and alerting.runs_out(a, draws)) and not exhausted then
    alerts[#alerts + 1], exhausted = '["credits_exhausted",0]', true
  end
  if exhausted then parts[#parts + 1] = 'x' end
  if top_up ~= '' then top_up = top_ups.judged(a, top_up, available) end
  a.thresholds = (parts[1] and concat(parts, ',') or '-') .. top_up
  change_account(a)
  return join(alerts[1] and '"alerts":[' .. concat(alerts, ',') .. ']' or '', top_ups.told(a, top_up))
end

-- What the account may do, as JSON members of an entry.
local function settings_of(a)
  return format('"overdraft_limit":%d,"suspended":%s,"low_credit_thresholds":"%s"', figures_of(a).overdraft_limit,
    a.suspended == 's' and 'true' or 'false', bare_thresholds(a.thresholds))
end
