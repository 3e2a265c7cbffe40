-- Strangers: accounts of users who never had credits and never spent any. Anybody can be named, and an account stays, so a
-- partition has as many of them as one account may have reservations. Each has a member " user_id" in ORDER, in front of
-- everybody's grants.

local strangers_made = 0 -- by this call, not yet in ORDER

local function is_stranger(a)
  return figures_of(a).granted + a.scheduled + a.debt == 0 -- without credits, what was spent is debt
end

-- Lets an account begin to exist; false where it is a stranger's and there are as many as there may be.
local function admit(a)
  if account_texts[a.user] or a.changed or not is_stranger(a) then return true end
  local room = reservations_max - strangers_made
  if room <= 0 or redis.call('ZRANGEBYLEX', ORDER, '[ ', '(!', 'LIMIT', format('%d', room - 1), '1')[1] then return false end
  order_writes[' ' .. a.user] = true
  strangers_made = strangers_made + 1
  return true
end

-- To be called before an account gets or spends its first credits: it is no stranger's from then on.
local function welcome(a)
  if is_stranger(a) and (account_texts[a.user] or a.changed) then order_writes[' ' .. a.user] = false end
end
