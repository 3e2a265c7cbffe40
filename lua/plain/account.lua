-- The plain case in front of the full program: one live grant covers what is asked, nothing is due, nothing is to be told.
-- It writes what the full program would write, which takes over at the first operation that is not plain, and answers the same
-- in fewer bytes: the letter of a verb and what the sender cannot know (meter/engine/short_answers.py puts it in full).

local PLAIN = '^(%d+) (%d+) (%d+) (%d+) (%d+) (%d+) %- (%S+) (.*)$' -- without flags, see state/account.lua

local plain = {} -- name -> function(index of its first own argument) -> answer, or nil where the case is not plain

-- The account at hand: without debt, not suspended, without thresholds. grant, remaining and held are its front grant's; one
-- with something left means that something is available.
local user, available, reserved, remaining, held, next_due, hold_count, grant, rest

local price_kept, price_told -- of the hold that is being committed for a usage, and of that (plain/usage.lua)

-- Takes an account to hand; false where it is not plain.
local function take(whose)
  user = whose
  available, reserved, remaining, held, next_due, hold_count, grant, rest = match(account_texts[whose] or '', PLAIN)
  return available and (next_due == '0' or next_due + 0 > now) and not (is_ruled and paths.is_ruled(whose))
end

-- What the caller asked for besides, as last parts of a row; `detail` are the members of our own.
local function asked_besides(detail)
  if current_fingerprint ~= '' then detail = join(detail, '"fingerprint":"' .. current_fingerprint .. '"') end
  if current_extra ~= '' then detail = join(detail, current_extra) end
  if detail == '' and current_key == '' then return '' end
  return ',"' .. current_key .. '",{' .. detail .. '}'
end

-- Books one transaction of the account at hand, whose only draw is the whole amount, and keeps the account.
local function book(kind, amount, detail)
  seq = seq + 1
  rows[#rows + 1] = format('["%s","%s",%d,%d,%d,"%s",%d,%d%s]', kind, user, amount, available, reserved, grant, remaining, held,
    asked_besides(detail))
  account_texts[user] = format('%d %d %d %d %s %d - %s %s', available, reserved, remaining, held, next_due, hold_count, grant,
    rest)
  plain_users[user] = true
end
