-- Takes over what the plan of a subscription says of rules, and when its periods end (state/plan_rules.lua). Older news than
-- what is there changes nothing.
-- ARGV    user_id, plan_group, version (of the subscription), budgets, rate_limits (changes with all members, ";" between; "-" =
--         none), bounds (of periods, ":" between)
-- Answers ok user_id
-- Writes  accounts, order, rules, counters, calendar, outbox (account)
function operations.plan_rules(i)
  local user = ARGV[i]
  local names = paths.levels_of(user)
  local told = names[#names] == user and levels.plans.tell(user, {
    group = ARGV[i + 1], version = ARGV[i + 2] + 0, budgets = ARGV[i + 3], limits = ARGV[i + 4], bounds = ARGV[i + 5],
  })
  if not told then return 'ok ' .. user end
  local a = figures_of(account_of(user))
  local plan = levels.plans.planned(user)
  if levels.plans.differs(plan) then
    admit(a)
    a.has_rules = levels.adopt(plan)
    change_account(a)
    record(a, 'account', 0, {}, now, settings_of(a) .. format(',"plan_group":"%s"', ARGV[i + 1]))
  end
  return 'ok ' .. user
end
