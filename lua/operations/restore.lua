-- Puts an account back as the store has it, grants and open holds included; books nothing. For a partition in repair.
-- ARGV    user_id, overdraft_limit, suspended (0 | 1), low_credit_thresholds, debt, granted, spent, expired, voided,
--         number of grants, then each grant: grant_id and its packed text (state/grant.lua; class and shelved are ours),
--         number of holds, then each hold: reservation_id and its packed text (state/hold.lua)
-- Answers ok user, then the balances
-- Writes  accounts, grants, order, holds, agenda, due
function operations.restore(i)
  local a = new_account(ARGV[i])
  accounts[a.user] = a
  a.overdraft_limit, a.suspended, a.thresholds = ARGV[i + 1] + 0, ARGV[i + 2] == '1' and 's' or '-', ARGV[i + 3]
  a.debt, a.granted, a.spent = ARGV[i + 4] + 0, ARGV[i + 5] + 0, ARGV[i + 6] + 0
  a.expired, a.voided = ARGV[i + 7] + 0, ARGV[i + 8] + 0
  local at = i + 10
  for _ = 1, ARGV[i + 9] + 0 do
    local g = parse_grant(ARGV[at], ARGV[at + 1])
    g.shelved = 0
    a.grants[g.id], a.grant_count = g, a.grant_count + 1
    if g.class == 'S' then
      a.scheduled = a.scheduled + g.amount
      schedule(a, g.effective, 's', g.id)
    else
      a.available = a.available + g.remaining
    end
    if g.expires < NEVER and g.state == '-' then schedule(a, g.expires, 'x', g.id) end
    local begins = g.class == 'S' and g.effective <= now -- its start is due and will be settled, not skipped
    g.class = 'N'
    if begins then set_class(a, g, 'S') else place(a, g) end
    change_grant(a, g)
    at = at + 2
  end
  for n = 1, ARGV[at] + 0 do
    hold_texts[ARGV[at + 2 * n - 1]] = ARGV[at + 2 * n]
    local hold = hold_of(ARGV[at + 2 * n - 1])
    hold_writes[hold.id] = hold
    a.reserved, a.hold_count = a.reserved + hold.amount, a.hold_count + 1
    schedule(a, hold.ends, 'h', hold.id)
  end
  local used = a.spent + a.expired + a.voided + a.reserved > 0
  a.thresholds = marked_thresholds(a.thresholds, a.available, used and a.available == 0)
  change_account(a)
  return format('ok %s', a.user) .. balances(a)
end
