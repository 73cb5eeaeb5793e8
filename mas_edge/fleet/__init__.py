"""Who belongs to a fleet, and what its members may believe: identities, enrolment, signing, rollout."""
