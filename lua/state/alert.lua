-- Alerts: decided with the balance that fires them, so that two charges that race across a threshold make one.
--
-- The account's text of thresholds is "-", or units in descending order: "30!,10". "!" marks one that has fired; it is
-- armed again when more than a tenth above it is available. A last "x" says that the end of all credits was told; it is
-- armed again when credits come in, not when a hold gives some back.

local CREDITS_IN = { grant = true, grant_started = true, refund = true }
local CREDITS_OUT = { deduct = true, reserve = true, extend = true, commit = true, void = true, grant_expired = true }

-- The thresholds without our marks.
local function bare_thresholds(text)
  text = gsub(gsub(text, '!', ''), ',?x$', '')
  return text == '' and '-' or text
end

-- The thresholds of a balance, those at or above it marked as fired: nothing is told of what is so already.
local function marked_thresholds(text, available, exhausted)
  local parts = {}
  for t in gmatch(text, '%d+') do parts[#parts + 1] = available <= t + 0 and t .. '!' or t end
  if exhausted then parts[#parts + 1] = 'x' end
  return parts[1] and concat(parts, ',') or '-'
end

-- The alerts of a transaction that leaves the account as it is, as JSON members of its entry; "" for none.
-- What a hold gives back to grants that have ended is about to be booked as expired, and does not count.
local function alerts_of(a, kind, amount)
  local available, parts, told = a.available - (a.forfeiting or 0), {}, {}
  for t, fired in gmatch(a.thresholds, '(%d+)(!?)') do
    local threshold = t + 0
    if available <= threshold then
      if fired == '' then told[#told + 1] = format('["low_credits",%.0f]', threshold) end
      fired = '!'
    elseif available > threshold + threshold / 10 then
      fired = ''
    end
    parts[#parts + 1] = t .. fired
  end
  local exhausted = sub(a.thresholds, -1) == 'x'
  if available > 0 and CREDITS_IN[kind] then
    exhausted = false
  elseif available == 0 and amount > 0 and CREDITS_OUT[kind] and not exhausted then
    told[#told + 1], exhausted = '["credits_exhausted",0]', true
  end
  if exhausted then parts[#parts + 1] = 'x' end
  a.thresholds = parts[1] and concat(parts, ',') or '-'
  change_account(a)
  return told[1] and '"alerts":[' .. concat(told, ',') .. ']' or ''
end
