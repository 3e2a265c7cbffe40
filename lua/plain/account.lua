-- The plain case in front of the full program: one live grant covers what is asked, nothing is due, nothing is to be told.
-- It says and writes the same texts as the full program, which takes over at the first operation that is not plain. Of its
-- instructions it takes 57 % in a batch of 32 deducts, and 60 % where one travels alone, because nothing else is made.

local PLAIN = '^(%d+) (%d+) 0 (%d+ %d+) (%d+) (%d+ %d+ %d+) (%d+) (%d+) (%d+ %- %-) (%S+) (%d+) (%d+) (%d+) (.*)$'
local PLAIN_FORMAT = '%d %d 0 %s %d %s %s %d %s %s %s %d %d %s'
local PLAIN_ENTRY = '[1,%s,%d,"%s","%s","%s","%s","%s",%d,[["%s",%d,%d,%d]],%d,%d,0,%d,{%s}]'

local plain = {} -- name -> function(index of its first own argument) -> answer, or nil where the case is not plain

-- The account at hand: without debt, not suspended, without thresholds. grant, whole, remaining, held and terms are its front
-- grant's; one with something left means that something is available.
local user, available, reserved, granted, spent, ended, next_due, hold_count, count_text, grant, whole, remaining, held, terms

-- Takes an account to hand; false where it is not plain.
local function take(whose)
  user = whose
  available, reserved, granted, spent, ended, next_due, hold_count, count_text, grant, whole, remaining, held, terms =
    match(account_texts[whose] or '', PLAIN)
  return available and next_due + 0 > now
end

-- Books one transaction of the account at hand, of which `drawn` is its draw, and keeps the account.
local function book(kind, amount, drawn, detail)
  seq = seq + 1
  local prev = head
  head = format('%s-%d-%s-%d', partition, seq, sender, batch)
  if current_fingerprint ~= '' then detail = join(detail, format('"fingerprint":"%s"', current_fingerprint)) end
  if current_extra ~= '' then detail = join(detail, current_extra) end
  entries[#entries + 1] = format('%d-0', seq)
  entries[#entries + 1] = format(PLAIN_ENTRY, epoch, seq, prev, head, current_key, kind, user, amount, grant, drawn, remaining,
    held, available, reserved, now, detail)
  account_texts[user] = format(PLAIN_FORMAT, available, reserved, granted, spent, ended, next_due, hold_count, count_text, grant,
    whole, remaining, held, terms)
  plain_users[user] = true
end
