-- The plain case of operations/deduct.lua.
function plain.deduct(i)
  local amount = ARGV[i + 1] + 0
  if amount == 0 or outbox_full() or not take(ARGV[i]) then return end
  remaining, spent = remaining - amount, spent + amount
  if remaining <= 0 or spent > AMOUNT_MAX then return end
  available = available - amount
  book('deduct', amount, amount, '')
  return format('ok %s %s %d %d 0 %d %s 0', user, head, amount, amount, available, reserved)
end
