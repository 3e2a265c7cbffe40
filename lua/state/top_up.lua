-- Auto top-up: credits that are to be bought when few are left, asked for once per crossing with the balance that crosses.
--
-- Its word stands behind the thresholds of the account: "~" and
--   state,below,amount,most,period,reference   units; most "-": no bound; reference: what the provider knows the payer by
-- state is a (armed), o (off), or w: one is asked for, and its id stands behind: ",topup:" and the transaction that asked. It is
-- armed again by the grant of that id, or by operations/top_up.lua. While the account is suspended none is asked for.
-- The entry that changes the word tells the new one (meter/ledger/top_up_entries.py).

local top_ups = { PATTERN = '^~(%a),(%d+)(,[^,]+,[^,]+,[^,]+,[^,]+),?(%S*)$' } -- state, below, the other terms, id

-- The word is to be that one; the next transaction tells it.
function top_ups.put(a, word)
  local levels, since = match(a.thresholds, '^([^;~]*)~?[^;]*(.*)$')
  a.thresholds, a.tells_top_up = levels .. word .. since, true
  change_account(a)
end

-- The word of an account with its "~", "" where it has none.
function top_ups.of(a)
  return match(a.thresholds, '~[^;]*') or ''
end

-- What becomes of a word by the credits of a transaction that is to be booked next.
function top_ups.judged(a, word, available)
  local state, below, terms = match(word, top_ups.PATTERN)
  if state ~= 'a' or available > below + 0 or a.suspended == 's' then return word end
  a.tells_top_up = true
  return format('~w,%s%s,topup:%s', below, terms, transaction_of(seq + 1))
end

-- The grant of a request came: another one may be asked for.
function top_ups.came(a, grant_id)
  local state, below, terms, id = match(top_ups.of(a), top_ups.PATTERN)
  if state == 'w' and id == grant_id then top_ups.put(a, '~a,' .. below .. terms) end
end

-- The word as a member of the entry that is to come, once; "" where it has not changed.
function top_ups.told(a, word)
  if not a.tells_top_up then return '' end
  a.tells_top_up = false
  return '"top_up":"' .. sub(word, 2) .. '"'
end
