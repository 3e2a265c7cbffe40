-- The plain case of operations/deduct.lua.
-- Answers d seq available reserved
function plain.deduct(i)
  local amount = ARGV[i + 1] + 0
  if amount == 0 or outbox_full() or not take(ARGV[i]) then return end
  remaining = remaining - amount
  if remaining <= 0 then return end
  available = available - amount
  book('deduct', amount, '')
  if current_key ~= '' then
    remember_answer('k ', current_key, current_fingerprint,
      format('ok %s %s %d %d 0 %d %s 0', user, transaction_of(seq), amount, amount, available, reserved))
  end
  return format('d %d %d %s', seq, available, reserved)
end
